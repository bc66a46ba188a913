"""What labelled images lack, and which labels are probably wrong."""
