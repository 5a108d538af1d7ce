"""Images: formats, the content-addressed store, extraction of layers and the distribution protocol."""
