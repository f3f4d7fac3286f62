"""What a run will do, decided and priced before anything runs."""
