"""Results for people: tables on the terminal, and one HTML page that needs nothing beside it."""
