-- Revision 0003: the identity of this database, which the broker records.

CREATE TABLE dims_database (
    only_row BOOLEAN DEFAULT true NOT NULL,
    id UUID DEFAULT gen_random_uuid() NOT NULL,
    created_at TIMESTAMPTZ DEFAULT clock_timestamp() NOT NULL,
    PRIMARY KEY (only_row),
    CONSTRAINT dims_database_only_row_check CHECK (only_row)
);
COMMENT ON TABLE dims_database IS
    'The identity of this database. The broker records it, so that two projects never share a broker database.';
COMMENT ON COLUMN dims_database.only_row IS 'always true: the table has one row';
COMMENT ON COLUMN dims_database.id IS 'a random id, which comes with a dump of the database';
COMMENT ON COLUMN dims_database.created_at IS 'when the id was made';

INSERT INTO dims_database DEFAULT VALUES;
