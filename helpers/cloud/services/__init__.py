"""What is ours in each service; a module extends the package of moto that has its name."""
