internal import PostgresClient
public import Wire

/// The last cursor that each device has acknowledged, as the opaque text that it is.
public enum Devices {
    public static func cursor(of device: DeviceID, user: UserID) -> Statement<String> {
        Statement(
            "devices.cursor", "SELECT cursor FROM devices WHERE user_id = $1 AND device_id = $2",
            [.id(user), .id(device)]
        ) { row, index in row.text(index, 0) }
    }

    /// Stores many at once; a device may stand in it once.
    public static func store(_ cursors: [(user: UserID, device: DeviceID, cursor: String)]) -> Statement<Never> {
        Statement(
            "devices.store",
            """
            INSERT INTO devices (user_id, device_id, cursor)
            SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[])
            ON CONFLICT (user_id, device_id) DO UPDATE SET cursor = excluded.cursor, updated_at = now()
            """,
            [.ids(cursors.map(\.user)), .ids(cursors.map(\.device)), .texts(cursors.map(\.cursor))])
    }
}
