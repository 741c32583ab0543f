"""The policies, and the shapes that they implement."""
