import CDC
import PostgresClient
import Runtime
import System
import Wire

extension Command {
    static let cdc = Command(
        name: "cdc",
        summary: "keep topics true to Postgres tables",
        operands: "[snapshot]",
        details: """
            Reads the tables members, chats and users whole, then every change of them from Postgres' log, into
            chat.members and chat.users. A second process waits as a standby.

            Tables of your own: add them to the publication (ALTER PUBLICATION fanout ADD TABLE orders) and say where
            they go, --table orders=shop.orders:order_id or --table shop.orders=shop.orders:customer_id,order_id@customer_id:
            the topic, the key's columns, and the one of them by which the partition is chosen (else the first).

            A table that cannot be followed after a change of its shape stops no other: its topic is put aside, /readyz is 503,
            and the topic is read whole when the table can be followed again (docs/cdc-schema-changes.md).

            fanout cdc snapshot --table orders    reads one table again, while changes are streamed; done when it returns

            Exit status 4: the slot was lost, and --resnapshot never forbids to start over; or the database is older than
            what the topics hold (restored from a backup), or another, and nobody has said --accept-restored-database.
            """,
        options: Option.kafka + [
            Option.postgres, Option.metrics,
            Option("table", .string("TABLE=TOPIC:KEY"), "a table to publish beside Fanout's own", isRepeated: true),
            Option("publication", .string("NAME"), "the publication to read", standard: "fanout"),
            Option("slot", .string("NAME"), "the replication slot to keep", standard: "fanout"),
            Option(
                "resnapshot", .choice(CDCConfiguration.Resnapshot.allCases.map(\.rawValue)),
                "when the slot was lost: read everything again, or stop", standard: "auto"),
            Option(
                "accept-restored-database", .flag,
                "read a database that was restored from a backup, and delete from the topics what it does not have"),
            Option(
                "stream-large", .choice(["yes", "no"]),
                "receive large transactions while they are under way, and keep them on disk until they commit",
                standard: "yes"),
            Option("spill", .string("DIR"), "where large transactions are kept (default: $TMPDIR, or /tmp)"),
            Option("binary", .flag, "receive values in binary, for tables of which every column's type is known so"),
            Option("own-tables", .choice(["yes", "no"]), "publish members, chats and users", standard: "yes"),
        ],
        run: { invocation in
            switch invocation.operands {
            case []: try stream(invocation)
            case ["snapshot"]: try snapshot(invocation)
            default: throw UsageError("expected nothing or 'snapshot', not '\(invocation.operands[0])'")
            }
        })

    private static func stream(_ invocation: Invocation) throws -> ExitCode {
        let options = invocation.options
        var routes =
            options.string("own-tables") == "no"
            ? [] : TableRoute.standard(members: invocation.names[.members], users: invocation.names[.users])
        for text in options.strings("table") {
            guard let equals = text.firstIndex(of: "="),
                let route = TableRoute(
                    table: String(text[..<equals]), destination: String(text[text.index(after: equals)...]))
            else { throw UsageError("--table must be TABLE=TOPIC:KEY[,KEY…][@PARTITION], not '\(text)'") }
            routes.append(route)
        }
        var configuration = CDCConfiguration(
            postgres: try invocation.postgres(), kafka: try invocation.kafka(clientID: "fanout-cdc"), routes: routes,
            group: invocation.names.group("cdc"))
        configuration.publication = options.string("publication") ?? configuration.publication
        configuration.slot = try slot(options)
        configuration.binary = options.flag("binary")
        configuration.streamsLarge = options.string("stream-large") != "no"
        configuration.spillDirectory = options.string("spill") ?? Environment["TMPDIR"] ?? configuration.spillDirectory
        configuration.resnapshot =
            options.string("resnapshot").flatMap(CDCConfiguration.Resnapshot.init) ?? configuration.resnapshot
        configuration.acceptsRestoredDatabase = options.flag("accept-restored-database")
        let cdc = CDC(configuration, log: invocation.log, clock: invocation.clock, metrics: invocation.metrics)
        return try invocation.runStage(
            run: { try cdc.run() }, health: cdc.health, stop: { cdc.stop() })
    }

    /// Postgres allows no other characters in a slot's name.
    private static func slot(_ options: Options) throws -> String {
        let slot = options.string("slot") ?? "fanout"
        guard slot.utf8.count < 64,
            slot.utf8.allSatisfy({ (0x61...0x7a).contains($0) || (0x30...0x39).contains($0) || $0 == 0x5f })
        else { throw UsageError("--slot must be of lower-case letters, digits and underscores") }
        return slot
    }

    private static func snapshot(_ invocation: Invocation) throws -> ExitCode {
        let options = invocation.options
        let tables = options.strings("table")
        guard tables.count == 1, let table = tables.first, !table.contains("=") else {
            throw UsageError("say which table: fanout cdc snapshot --table NAME")
        }
        let request = SnapshotRequest(
            postgres: try invocation.postgres(), slot: try slot(options),
            publication: options.string("publication") ?? "fanout", table: table)
        try request.run(log: invocation.log)
        return .success
    }
}

extension CDCError: HasExitCode {
    var exitCode: ExitCode { code == .slotLost || code == .restoredDatabase ? .slotLost : .failure }
}
