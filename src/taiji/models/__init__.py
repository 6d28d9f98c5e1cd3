"""Models for retrieval, ranking, fusion and re-ranking, and for item codes and policies."""
