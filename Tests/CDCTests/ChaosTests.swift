import Foundation
import PostgresClient
import TestSupport
import Testing

/// Random transactions while CDC and the broker are killed and Postgres is restarted, at random points.
@Suite struct ChaosTests {
    /// `FANOUT_CDC_SEEDS=20` runs that many.
    private static let seeds = Int(ProcessInfo.processInfo.environment["FANOUT_CDC_SEEDS"] ?? "") ?? 1

    @Test func `whatever is killed when, the topic folds to what the tables hold`() throws {
        for _ in 0..<Self.seeds { try round(SeededGenerator.announced("cdc chaos")) }
    }

    private func round(_ generator: SeededGenerator) throws {
        var random = generator
        // So small that the larger transactions are sent while they are under way.
        let cluster = try PostgresCluster(settings: ["logical_decoding_work_mem": "64kB"])
        let broker = try BrokerProcess()
        let setup = try Setup(database: cluster.freshDatabase(), kafka: broker.address)
        for _ in 0..<10 { try RandomTables.change(&setup.postgres, &random) }
        try setup.start()
        for _ in 0..<60 {
            switch Int.random(in: 0..<20, using: &random) {
            case 0..<3:
                setup.cdc?.kill()
                try setup.start()
            case 3:
                broker.kill()
                for _ in 0..<Int.random(in: 0...3, using: &random) { try RandomTables.change(&setup.postgres, &random) }
                try broker.restart()
            case 4:
                try cluster.restart(Bool.random(using: &random) ? .immediate : .fast)
                setup.postgres = try PostgresConnection(setup.database)
            default: try RandomTables.change(&setup.postgres, &random)
            }
        }
        try setup.expectTrue("at the end", seconds: 120)
        #expect(setup.cdc?.terminate() == 0)
        #expect(setup.cdc?.text.contains("protocol") == false)
    }
}
