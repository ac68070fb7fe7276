"""One kit for all reports: records/ is what a command found, pages/ what is drawn from that alone, the rest draws."""
