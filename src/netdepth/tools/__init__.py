"""Tools for finished networks: each has a folder that holds what it computes, its pictures and its words."""
