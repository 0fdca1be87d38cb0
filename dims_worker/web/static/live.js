// Live parts: filled by the room that tells what happens.
