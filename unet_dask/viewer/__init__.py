"""A look at a result in the browser: tiles made on demand, and the page that asks for them."""
