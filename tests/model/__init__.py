"""The protocol as a state machine that is explored exhaustively, around catalog/'s own decisions."""
