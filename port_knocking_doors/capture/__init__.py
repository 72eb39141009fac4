"""Network to knocks: sockets, the packet ring and its filter; what a knock means is not decided here."""
