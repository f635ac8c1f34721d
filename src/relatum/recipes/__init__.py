"""Recipes: the tree that decides a run, the named recipes, and how the command line finds them without torch."""
