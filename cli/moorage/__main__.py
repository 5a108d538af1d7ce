"""`python -m moorage`."""

from moorage.main import main

main()
