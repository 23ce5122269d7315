import Foundation
import KafkaClient
import PostgresClient
import TestSupport
import Testing
import Wire

/// Reads a topic from its beginning to its present end.
func forEachRecord(
    of topic: String, kafka: String, _ body: (_ key: String, _ value: [UInt8]?, _ partition: Int32) throws -> Void
) throws {
    let configuration = KafkaConfiguration(bootstrapServers: kafka)
    let admin = try Admin(configuration)
    defer { admin.close(deadlineMs: 500) }
    let count = try admin.partitionCounts(of: [topic])[0]
    let places = (0..<count).map { TopicPartition(topic, $0) }
    let ends = try admin.watermarks(places).map { try $0.get() }
    var left = Set(zip(places, ends).filter { $1.high > $1.low }.map(\.0))
    if left.isEmpty { return }
    var options = ConsumerOptions()
    options.reportsEndOfPartition = true
    let consumer = try Consumer(configuration, options)
    defer { consumer.close(deadlineMs: 500) }
    try consumer.assign(left.map { PartitionStart($0, at: .beginning) })
    let deadline = Date().addingTimeInterval(180)
    while !left.isEmpty, Date() < deadline {
        let batch = consumer.poll(maxMessages: 1000, timeoutMs: 100)
        for index in 0..<batch.count {
            let message = batch[index]
            var key = ""
            if let bytes = message.key { key = String(showing: bytes) }
            var value: [UInt8]?
            if let bytes = message.value { value = [UInt8](copying: bytes) }
            try body(key, value, message.partition)
            if message.offset == ends[Int(message.partition)].high - 1 {
                left.remove(TopicPartition(topic, message.partition))
            }
        }
        if case .endOfPartition(let place, _) = batch.event { left.remove(place) }
    }
    #expect(left.isEmpty, "the end of \(topic) was not reached")
}

/// A topic folded to what is in it now: the last row of each key.
struct FoldedTopic {
    private(set) var rows: [String: NSDictionary] = [:]
    private(set) var recordCount = 0
    private(set) var operations: [String: Int] = [:]
    private(set) var keysByPartition: [Int32: Set<String>] = [:]

    /// Reads a topic from its beginning to its present end.
    init(_ topic: String, kafka: String) throws {
        try forEachRecord(of: topic, kafka: kafka) { key, value, partition in try take(key, value, partition) }
    }

    private mutating func take(_ key: String, _ value: [UInt8]?, _ partition: Int32) throws {
        recordCount += 1
        keysByPartition[partition, default: []].insert(key)
        guard let value else {
            operations["tombstone", default: 0] += 1
            rows[key] = nil
            return
        }
        let envelope = try #require(try JSONSerialization.jsonObject(with: Data(value)) as? [String: Any])
        operations[envelope["op"] as? String ?? "?", default: 0] += 1
        guard var row = envelope["after"] as? [String: Any] else {
            rows[key] = nil
            return
        }
        // What was not sent because it had not changed is what it was.
        for (name, field) in row where (field as? String) == "__debezium_unavailable_value" {
            row[name] = rows[key]?[name]
        }
        rows[key] = row as NSDictionary
    }
}

/// Two tables of many types, one with whole old rows and one with only its key, and random transactions on them.
struct RandomTables {
    static let schema = """
        CREATE TABLE whole (a int, b text, n bigint, f float8, ok boolean, at timestamptz, num numeric(20, 4),
            big text, raw bytea, doc jsonb, PRIMARY KEY (a, b));
        ALTER TABLE whole REPLICA IDENTITY FULL;
        CREATE TABLE keyed (id uuid PRIMARY KEY, note text, big text, at timestamp);
        ALTER TABLE whole ALTER big SET STORAGE EXTERNAL;
        ALTER TABLE keyed ALTER big SET STORAGE EXTERNAL;
        CREATE PUBLICATION p FOR TABLE whole, keyed;
        """

    static let wholeJSON = """
        SELECT json_build_object('a', a, 'b', b)::text, json_build_object('a', a, 'b', b, 'n', n, 'f', f, 'ok', ok,
            'at', floor(extract(epoch from at) * 1000)::bigint, 'num', num::text, 'big', big,
            'raw', translate(encode(raw, 'base64'), E'\\n', ''), 'doc', doc::text)::text FROM whole
        """
    static let keyedJSON = """
        SELECT json_build_object('id', id)::text, json_build_object('id', id, 'note', note, 'big', big,
            'at', floor(extract(epoch from at) * 1000)::bigint)::text FROM keyed
        """

    static func routes(_ topic: String) -> [String] {
        ["--table", "whole=\(topic):a,b@b", "--table", "keyed=\(topic):id", "--own-tables", "no", "--publication", "p"]
    }

    /// One transaction.
    static func change(_ postgres: inout PostgresConnection, _ random: inout SeededGenerator) throws {
        do {
            try transaction(&postgres, &random)
        } catch let error as PostgresError where error.code == .server && error.isTransient {
            // TRUNCATE and a snapshot can deadlock; Postgres ends one of them.
            try postgres.execute("ROLLBACK")
        }
    }

    private static func transaction(_ postgres: inout PostgresConnection, _ random: inout SeededGenerator) throws {
        try postgres.execute("BEGIN")
        for _ in 0..<Int.random(in: 1...12, using: &random) {
            let a = Int.random(in: 0..<30, using: &random)
            let number = Int.random(in: -1_000_000...1_000_000, using: &random)
            let text = ["", "x", "it's \\ \"q\" \t\n é😀", "NULL", "\\N"].randomElement(using: &random)!
            let literal = SQL.literal(text)
            let big = "repeat('\(number)', \(Int.random(in: 0...1, using: &random) * 1000))"
            let id = "'00000000-0000-4000-8000-0000000000\(String(format: "%02d", a))'"
            let sql: String
            switch Int.random(in: 0..<100, using: &random) {
            case 0..<35:
                sql = """
                    INSERT INTO whole VALUES (\(a), \(literal), \(number), \(number) / 7.0, \(number) % 2 = 0,
                        '2026-01-01'::timestamptz + \(number) * interval '1 minute 1 microsecond', \(number) / 13.0, \(big),
                        '\\x00ff\(a % 10)0', jsonb_build_object('k', \(number), 't', \(literal)))
                    ON CONFLICT (a, b) DO UPDATE SET n = EXCLUDED.n, num = -EXCLUDED.num, ok = NULL
                    """
            case 35..<50:
                sql = """
                    INSERT INTO keyed VALUES (\(id), \(literal), \(big), '2026-01-01'::timestamp - \(number) * interval '1 s')
                    ON CONFLICT (id) DO UPDATE SET note = EXCLUDED.note
                    """
            case 50..<60: sql = "UPDATE whole SET n = n + 1 WHERE a = \(a)"
            case 60..<68: sql = "UPDATE keyed SET note = note || '!' WHERE id = \(id)"
            case 68..<74:
                sql =
                    "UPDATE whole SET a = a + 100 WHERE a = \(a) AND NOT EXISTS (SELECT 1 FROM whole o WHERE o.a = \(a + 100))"
            case 74..<84: sql = "DELETE FROM whole WHERE a % 30 = \(a)"
            case 84..<92: sql = "DELETE FROM keyed WHERE id = \(id)"
            case 92..<97: sql = "SAVEPOINT s; DELETE FROM whole; UPDATE keyed SET note = 'gone'; ROLLBACK TO s"
            case 97:
                sql = """
                    INSERT INTO whole SELECT g, 'many', g FROM generate_series(1000, 3000) g ON CONFLICT DO NOTHING
                    """
            case 98: sql = "DELETE FROM whole WHERE b = 'many'"
            default: sql = Bool.random(using: &random) ? "TRUNCATE whole" : "TRUNCATE keyed, whole"
            }
            try postgres.execute(sql)
        }
        try postgres.execute(Int.random(in: 0..<10, using: &random) == 0 ? "ROLLBACK" : "COMMIT")
    }

    /// What is in the tables, as the topic should have it.
    static func rows(_ postgres: inout PostgresConnection) throws -> [String: NSDictionary] {
        var rows: [String: NSDictionary] = [:]
        for sql in [wholeJSON, keyedJSON] {
            let result = try postgres.query(sql)
            for index in 0..<result.rowCount {
                let key = (result.text(index, 0) ?? "").replacing(" : ", with: ":").replacing(", \"", with: ",\"")
                let object = try JSONSerialization.jsonObject(with: Data((result.text(index, 1) ?? "").utf8))
                rows[key] = object as? NSDictionary
            }
        }
        return rows
    }

    /// Everything committed so far is confirmed.
    static func isCaughtUp(_ postgres: inout PostgresConnection, slot: String, to position: LSN) throws -> Bool {
        let row = try postgres.query(
            "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1", [.text(slot)])
        return (row.isEmpty ? nil : row.text(0, 0).flatMap { LSN($0) }).map { $0 >= position } ?? false
    }

    static func position(_ postgres: inout PostgresConnection) throws -> LSN {
        try postgres.query("SELECT pg_current_wal_lsn()::text").text(0, 0).flatMap { LSN($0) } ?? .zero
    }
}

/// Compares, and says which keys differ.
func expectSame(_ topic: [String: NSDictionary], _ database: [String: NSDictionary], _ what: String) {
    let different = Set(topic.keys).union(database.keys).filter { topic[$0] != database[$0] }.sorted()
    for key in different.prefix(2) {
        Issue.record(
            "\(what): \(key): the topic has \(topic[key].map { "\($0)" } ?? "nothing"), the database \(database[key].map { "\($0)" } ?? "nothing")"
        )
    }
    #expect(different.isEmpty, "\(what): \(different.count) of \(database.count) rows differ")
}

func createTopic(_ name: String, partitions: Int, kafka: String) throws {
    let admin = try Admin(KafkaConfiguration(bootstrapServers: kafka))
    defer { admin.close(deadlineMs: 500) }
    for outcome in try admin.createTopics([
        NewTopic(name, partitions: partitions, configs: ["cleanup.policy": "compact"])
    ]) {
        if let error = outcome.error { throw error }
    }
}
