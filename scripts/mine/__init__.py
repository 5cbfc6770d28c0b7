"""What mine_negatives.py and score_with_teacher.py are made of."""
