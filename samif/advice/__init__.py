"""What labelled images lack and which labels are probably wrong: measured on arrays and records, said in plain words."""
