"""What is compared: a model in named forms, each with its samples and what was validated."""
