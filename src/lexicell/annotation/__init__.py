"""Label transfer on arrays: methods, tree probabilities, calibration, abstention, the unknown score, scores, files."""
