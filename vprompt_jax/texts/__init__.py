"""Inside the text tower: what is learned of the class texts. No part is there yet."""
