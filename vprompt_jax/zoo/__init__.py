"""The embedded mini CLIPs, and the programs that made them."""
