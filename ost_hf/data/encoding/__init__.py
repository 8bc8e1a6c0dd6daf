"""Examples to tokens with labels on the answers."""

from ost_hf.data.encoding.encoder import Encoder

__all__ = ["Encoder"]
