"""What predictions are worth: accuracy, calibration, comparisons; NumPy and SciPy alone."""
