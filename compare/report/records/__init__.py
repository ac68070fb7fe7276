"""What a command found, as frozen records with a JSON form: all that its page is drawn from."""
