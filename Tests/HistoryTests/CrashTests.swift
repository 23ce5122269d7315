import Foundation
import KafkaClient
import PostgresClient
import Store
import TestSupport
import Testing
import Wire

@Suite struct CrashTests {
    /// What the tables must hold in the end, told from the records alone.
    private struct Model {
        var rows: [ChatID: [Int64: (kind: String, body: String)]] = [:]
        var reads: [ChatID: Int64] = [:]
    }

    @Test(arguments: 0..<3)
    func `killed at any moment, the sink stores each record once and applies every change`(round: Int) throws {
        var random = SeededGenerator.announced("sink killed at random, \(round)")
        let scene = try Scene()
        var model = Model()
        var texts: [Scene.Sent] = []
        var process = try history(scene)
        for step in 0..<12 {
            for _ in 0..<Int.random(in: 50...400, using: &random) {
                let chat = scene.chats[Int.random(in: 0..<8, using: &random)]
                let user = Int.random(in: 0..<4, using: &random)
                let target = texts.last { $0.chat == chat }
                let sent: Scene.Sent
                switch (Int.random(in: 0..<10, using: &random), target) {
                case (0, let target?):
                    // By the sender, as the join sees to.
                    let sender = scene.users.firstIndex(of: target.from) ?? 0
                    sent = scene.message("edited \(step)", in: chat, by: sender, kind: .edit, target: target.seq)
                    if model.rows[chat]?[target.seq]?.kind == "text" {
                        model.rows[chat]?[target.seq]?.body = "{\"text\":\"edited \(step)\"}"
                    }
                case (1, let target?):
                    sent = scene.message("", in: chat, by: user, kind: .delete, target: target.seq)
                    model.rows[chat]?[target.seq] = ("deleted", "{}")
                case (2, let target?):
                    try scene.signal(.read, by: 1, in: chat, seq: target.seq)
                    model.reads[chat] = max(model.reads[chat] ?? -1, target.seq)
                    continue
                default:
                    sent = scene.message("hello \(step)", in: chat, by: user)
                    texts.append(sent)
                }
                let body =
                    switch sent.kind {
                    case .text: "{\"text\":\"hello \(step)\"}"
                    case .edit: "{\"text\":\"edited \(step)\",\"target\":\(sent.target ?? -1)}"
                    case .delete: "{\"target\":\(sent.target ?? -1)}"
                    }
                model.rows[chat, default: [:]][sent.seq] = (sent.kind.rawValue, body)
                try scene.write(sent)
                // The join was killed, too, and writes its last record again.
                if Int.random(in: 0..<20, using: &random) == 0 { try scene.write(sent) }
            }
            try scene.flush()
            let stored = try scene.count("SELECT count(*) FROM messages")
            if step % 3 != 2 {
                // At any moment: while starting, while storing, while idle.
                let patience = Double.random(in: 0..<1.2, using: &random)
                _ = eventually(seconds: patience) {
                    (try? scene.count("SELECT count(*) FROM messages")) ?? 0 > stored && Bool.random(using: &random)
                }
                process.kill()
                process = try history(scene)
            }
        }
        let expected = Int64(model.rows.values.reduce(0) { $0 + $1.count })
        #expect(eventually(seconds: 60) { (try? scene.count("SELECT count(*) FROM messages")) == expected })
        let reads = model.reads.values.reduce(0, +)
        #expect(
            eventually(seconds: 60) {
                (try? scene.count("SELECT coalesce(sum(read_seq), 0)::bigint FROM read_state")) == reads
            })
        process.terminate()

        var store = try scene.store()
        for chat in scene.chats {
            let rows = try store.postgres.query(
                "SELECT seq, kind, body::text FROM messages WHERE chat_id = $1", [.id(chat)])
            for row in 0..<rows.rowCount {
                let want = model.rows[chat]?[rows.int(row, 0) ?? -1]
                #expect(rows.text(row, 1) == want?.kind)
                #expect(rows.text(row, 2) == want?.body)
            }
            #expect(rows.rowCount == model.rows[chat]?.count ?? 0)
        }
        // A rebuild comes to the same.
        let before = try scene.count("SELECT sum(hashtext(chat_id::text || seq || kind || body::text)) FROM messages")
        let rebuild = try history(scene, ["rebuild"])
        #expect(rebuild.waitForExit(seconds: 60) == 0, "\(rebuild.text)")
        #expect(
            try scene.count("SELECT sum(hashtext(chat_id::text || seq || kind || body::text)) FROM messages") == before)
    }

    private func history(_ scene: Scene, _ operands: [String] = []) throws -> FanoutProcess {
        try FanoutProcess(
            ["history"] + operands + [
                "--kafka", scene.kafka.bootstrapServers, "--postgres", scene.postgres, "--topic-prefix",
                scene.names.prefix, "--instance", "one", "--batch", "100",
            ])
    }
}
