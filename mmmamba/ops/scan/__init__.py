"""The selective scan along a sequence and over a map: README.md in this folder has equations, gradients and limits."""
