"""Real processes on a real server: started, stopped, watched, and all gone at the end."""
