"""What a run leaves behind: the table on the terminal and the picture."""
