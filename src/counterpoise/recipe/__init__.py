"""What was asked for: the options of a run, from text or a file to plain resolved values, and to model and trainer."""
