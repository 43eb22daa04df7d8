"""What a trained model is asked: cell embeddings, labels, gene embeddings."""
