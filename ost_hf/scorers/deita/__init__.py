"""DEITA: rated complexity of the questions times rated quality of the answers."""
