"""What runs beside the user's notebook; standard library only, access tokens only."""
