-- Revision 0004: which generations need a reading, and which only a comparison with the present state.

ALTER TABLE dims_metrics
    ADD COLUMN reading_gen BIGINT DEFAULT '0' NOT NULL,
    ADD COLUMN state TEXT;
COMMENT ON COLUMN dims_metrics.reading_gen IS
    'the last generation that needs a reading; a later one needs one only if the state differs';
COMMENT ON COLUMN dims_metrics.state IS
    'what its latest accepted reading was measured from; NULL: unknown, so it is measured';
