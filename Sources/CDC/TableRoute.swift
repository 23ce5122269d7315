/// Where a table's changes go.
public struct TableRoute: Equatable, Sendable {
    public var schema: String
    public var table: String
    public var topic: String
    /// The columns that make the record's key, in this order. They must be in the table's replica identity, so that an
    /// old row tells its key.
    public var key: [String]
    /// The column by whose text the partition is chosen; one of the key's.
    public var partition: String

    public init(schema: String = "public", table: String, topic: String, key: [String], partition: String? = nil) {
        self.schema = schema
        self.table = table
        self.topic = topic
        self.key = key
        self.partition = partition ?? key.first ?? ""
    }

    public var name: String { "\(schema).\(table)" }

    /// Fanout's own tables. `members` and `chats` share a topic and are both partitioned by chat, so a chat's new
    /// version follows the rows that made it.
    public static func standard(members: String, users: String) -> [TableRoute] {
        [
            TableRoute(table: "members", topic: members, key: ["chat_id", "user_id"], partition: "chat_id"),
            TableRoute(table: "chats", topic: members, key: ["chat_id"]),
            TableRoute(table: "users", topic: users, key: ["user_id"]),
        ]
    }

    /// Reads `TOPIC:KEY,KEY…[@PARTITION]` for a table given as `[SCHEMA.]TABLE`; nil when it is something else.
    public init?(table name: String, destination: String) {
        let names = name.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
        guard (1...2).contains(names.count), names.allSatisfy({ !$0.isEmpty }) else { return nil }
        guard let colon = destination.lastIndex(of: ":") else { return nil }
        let topic = String(destination[..<colon])
        let rest = destination[destination.index(after: colon)...].split(
            separator: "@", omittingEmptySubsequences: false
        ).map(String.init)
        let key = rest[0].split(separator: ",", omittingEmptySubsequences: false).map(String.init)
        guard !topic.isEmpty, rest.count <= 2, key.allSatisfy({ !$0.isEmpty }) else { return nil }
        let partition = rest.count == 2 ? rest[1] : key[0]
        guard key.contains(partition) else { return nil }
        self.init(
            schema: names.count == 2 ? names[0] : "public", table: names.last ?? "", topic: topic, key: key,
            partition: partition)
    }
}
