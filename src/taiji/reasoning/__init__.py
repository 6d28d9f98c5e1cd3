"""Prompts and answers, teachers, rationale selection, leakage audit, review and supervised fine-tuning."""
