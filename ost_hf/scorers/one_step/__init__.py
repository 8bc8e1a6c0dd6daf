"""One-step utilities: what would one optimizer step on a row do to the anchors' loss?"""
