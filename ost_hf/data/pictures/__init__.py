"""Pictures as they lie in rows and files, to the RGB that a model sees."""
