"""What `import cython` gives where Cython is not installed: the word that nothing here is compiled."""

compiled = False
