"""Prompts and answers, teachers, selection of rationales, leakage audit, review and supervised fine-tuning."""
