"""The measured model in other frameworks, each written as its users would."""
