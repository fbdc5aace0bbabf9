"""The stand-in for `import cython` where Cython is not installed: says that no module is compiled."""

compiled = False
