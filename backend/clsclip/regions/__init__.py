"""Region proposals for ClsCLIP+: boxes in which to look again, zoomed in (section 3.4)."""
