"""Writing texts token by token, whatever the model behind the next token's logits."""
