"""The protocol, explored exhaustively as a state machine around catalog/'s own decisions."""
