"""The page of compare.run: every artifact against its network, in a terminal, as Markdown and as HTML."""
