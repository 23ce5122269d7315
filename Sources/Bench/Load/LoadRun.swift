/// Runs scenarios against a system.
public enum LoadRun {
    public static func run(_ scenario: Scenario, target: LoadTarget, meter: ProcessMeter) throws -> RunReport {
        let population = Population(chats: scenario.chats, membersPerChat: scenario.membersPerChat)
        try population.make(in: target.postgres)
        return try LoadGenerator(scenario, target: target, population: population).run(meter: meter)
    }
}
