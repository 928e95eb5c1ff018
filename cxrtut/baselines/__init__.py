"""Systems that the papers compare with, each as small as its core idea."""
