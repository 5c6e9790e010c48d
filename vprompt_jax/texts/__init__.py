"""Inside the text tower: what is learned of the class texts."""
