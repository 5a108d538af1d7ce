"""The shell around all pages: navigation, template tags, and the pages that show several apps' rows together."""
