#include "analysis/probe/probe.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "analysis/probe/intact.h"
#include "analysis/probe/jobs.h"
#include "analysis/probe/summarize.h"
#include "analysis/routes/route_sets.h"

namespace routescope::analysis {
namespace {

std::size_t index(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

/// What a probe is made of while it goes on.
class Prober {
 public:
  Prober(const model::Model& model, const ProbeIdentity& identity, std::int64_t step,
         kernels::Communicator& communicator, const ProbeOptions& options)
      : model_(model),
        identity_(identity),
        tokens_(identity.tokens),
        settings_(identity.settings),
        step_(step),
        options_(options),
        sets_(route_sets(identity.settings.sets, model.plan())),
        draws_(identity.settings, identity.tokens),
        batches_(model, identity.tokens, options.batch_bytes, communicator) {
    for (const RouteSet& set : sets_) {
      for (Ablation ablation : settings_.ablations) expect_room(ablation, set, whole(set));
    }
  }

  ProbeRow run() {
    const double start = seconds_now();
    describe_intact();
    jobs_ = make_jobs(plan(), sets_, reference_, settings_, draws_);
    for (const Job& job : jobs_.list) {
      for (const std::vector<GatedRoute>& routes : job.routes)
        expect_room(settings_.ablations[job.ablation], sets_[job.set], routes);
    }
    prepare_effects();
    ProbeCost& cost = row_.cost;
    cost.plain = cost.computed = cost.unshared = cost.undecided =
        static_cast<double>(tokens_.ids.size()) * static_cast<double>(plan().reads.size());
    for_each_block([&](std::int64_t begin, std::int64_t end) {
      cost.undecided += tokens_of(begin, end) * reads_per_token(options_.share_prefix);
    });
    for_each_block([&](std::int64_t begin, std::int64_t end) {
      measure_block(begin, end);
      if (settings_.until_decided) look(end);
    });
    finish_effects();
    cost.seconds = seconds_now() - start;
    return std::move(row_);
  }

 private:
  const model::ReadPlan& plan() const { return model_.plan(); }
  std::size_t sequences() const { return index(tokens_.sequences); }
  void expect_room(Ablation ablation, const RouteSet& set, std::span<const GatedRoute> routes) const {
    expect_room_for_means(plan(), model_.options().device, ablation, set.name, routes);
  }
  SetEffect& effect_of(const Job& job) { return row_.ablations[job.ablation].sets[job.set]; }
  bool is_open(const Job& job) const { return open_[job.ablation][job.set]; }
  bool any_open() const {
    return std::any_of(jobs_.list.begin(), jobs_.list.end(), [&](const Job& job) { return is_open(job); });
  }
  double tokens_of(std::int64_t begin, std::int64_t end) const {
    return static_cast<double>((end - begin) * tokens_.positions);
  }
  template <class Is>
  bool any_ablation(const Is& is) const {
    return std::any_of(settings_.ablations.begin(), settings_.ablations.end(), is);
  }
  /// The sequences between two looks, or all, as long as there is anything to measure.
  template <class Body>
  void for_each_block(const Body& body) {
    const std::int64_t size = settings_.until_decided ? settings_.look_every : tokens_.sequences;
    for (std::int64_t begin = 0; begin < tokens_.sequences && any_open(); begin += size)
      body(begin, std::min(begin + size, tokens_.sequences));
  }

  void describe_intact() {
    const bool source_means = any_ablation(
        [](Ablation one) { return donor_of(one) == Donor::mean && (changes_values(one) || changes_keys(one)); });
    Intact intact = measure_intact(model_, tokens_, source_means, batches_);
    reference_ = std::move(intact.reference);
    row_.step = step_;
    row_.cost.plain_seconds = intact.seconds;
    row_.intact_nll = mean(intact.nll_sequence);
    row_.reference_nll = options_.initial ? row_.intact_nll
                         : std::isnan(options_.reference_nll)
                             ? std::log(static_cast<double>(model_.config().vocab_size))
                             : options_.reference_nll;
    row_.margin = settings_.margin * std::fmax(row_.reference_nll - row_.intact_nll, 0);
    row_.intact_nll_sequence = std::move(intact.nll_sequence);
    for (std::size_t m = 0; tokens_.is_task() && m < num_metrics; ++m) {
      for (const MetricValues& of_prompt : intact.answers) row_.intact_metrics_sequence[m].push_back(of_prompt[m]);
      row_.intact_metrics[m] = mean(row_.intact_metrics_sequence[m]);
    }
    row_.alpha_mean = reference_.alpha_mean;
    row_.alpha_variance = std::move(intact.alpha_variance);
    row_.closed_form_error = intact.closed_form_error;
    row_.contribution_mean = intact.contribution.mean;
    row_.norm_mass_mean = intact.norm_mass.mean;
    sum_masses(intact.alpha, row_.mass, row_.mass_sequence);
    sum_masses(intact.contribution, row_.contribution, row_.contribution_sequence);
    sum_masses(intact.norm_mass, row_.norm_mass, row_.norm_mass_sequence);
  }

  /// The masses of the sets, of all tokens and [set, sequence], from those of routes.
  void sum_masses(const RouteMasses& routes, std::vector<double>& of_sets, std::vector<double>& by_sequence) const {
    of_sets = set_masses(sets_, routes.mean, plan().num_columns());
    by_sequence.assign(sets_.size() * sequences(), nan);
    const std::size_t size = routes.mean.size();
    for (std::size_t q = 0; q < sequences(); ++q) {
      const std::vector<double> mass =
          set_masses(sets_, std::span(routes.sequence).subspan(q * size, size), plan().num_columns());
      for (std::size_t s = 0; s < sets_.size(); ++s) by_sequence[s * sequences() + q] = mass[s];
    }
  }

  void prepare_effects() {
    for (Ablation ablation : settings_.ablations) {
      AblationEffects& effects = row_.ablations.emplace_back();
      effects.ablation = ablation;
      open_.emplace_back();
      for (const RouteSet& set : sets_) {
        SetEffect& effect = effects.sets.emplace_back();
        effect.coverage = coverage(plan(), ablation, set);
        effect.delta_nll_sequence.assign(sequences(), nan);
        for (MetricEffect& metric : effect.metrics)
          if (tokens_.is_task()) metric.delta_sequence.assign(sequences(), nan);
        for (ControlEffect* control : {&effect.control, &effect.contribution_control}) {
          if (settings_.controls > 0) control->delta_nll_sequence.assign(sequences(), nan);
        }
        if (settings_.frozen) effect.frozen.delta_nll_sequence.assign(sequences(), nan);
        if (settings_.direct) effect.direct.delta_nll_sequence.assign(sequences(), nan);
        for (const TokenClasses& classes : identity_.classes)
          effect.delta_nll_class.emplace_back(classes.labels.size(), 0.0);
        const bool tested = effect.coverage > 0;
        open_.back().push_back(tested);
        if (tested) effect.kl = effect.top1_agreement = 0;
      }
    }
  }

  /// Sequences [begin, end) under every job of a set that is open.
  void measure_block(std::int64_t begin, std::int64_t end) {
    const auto values =
        batches_.measure(begin, end, "probe of ablations",
                         [&](BatchProbe& batch, std::int64_t first, std::span<std::vector<double>> of_sequence) {
                           run_jobs(batch, first, of_sequence);
                         });
    const double predicted = static_cast<double>(tokens_.scored());
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::size_t q = index(begin) + i;
      const double* next = values[i].data();
      const double intact = *next++;
      const double* intact_metrics = next;
      if (tokens_.is_task()) next += num_metrics;
      for (const Job& job : jobs_.list) {
        if (is_open(job) && is_control(job.kind)) control_of(effect_of(job), job.kind).delta_nll_sequence[q] = 0;
      }
      for (const Job& job : jobs_.list) {
        if (!is_open(job)) continue;
        SetEffect& effect = effect_of(job);
        const double delta = (*next++ - intact) / predicted;
        if (job.kind == Job::Kind::frozen) effect.frozen.delta_nll_sequence[q] = delta;
        if (job.kind == Job::Kind::direct) effect.direct.delta_nll_sequence[q] = delta;
        if (is_control(job.kind)) control_of(effect, job.kind).delta_nll_sequence[q] += job.weight * delta;
        if (job.kind != Job::Kind::effect) continue;
        effect.delta_nll_sequence[q] = delta;
        effect.kl += *next++ / predicted;
        effect.top1_agreement += *next++ / predicted;
        for (std::size_t m = 0; tokens_.is_task() && m < num_metrics; ++m)
          effect.metrics[m].delta_sequence[q] = *next++ - intact_metrics[m];
        for (std::vector<double>& of_label : effect.delta_nll_class) {
          for (double& sum : of_label) sum += *next++;
        }
      }
    }
    row_.cost.computed += tokens_of(begin, end) * reads_per_token(options_.share_prefix);
    row_.cost.unshared += tokens_of(begin, end) * reads_per_token(false);
  }

  /// Of each sequence: the intact nll and metrics, then of every open job its nll and, but for controls, kl, agreement,
  /// metrics and the sum of what each label's tokens gained. Only a task has metrics.
  void run_jobs(BatchProbe& batch, std::int64_t first, std::span<std::vector<double>> of_sequence) {
    const auto put = [&](const std::vector<double>& by_token) {
      const std::vector<double> sums = by_sequence(by_token, tokens_.positions);
      for (std::size_t i = 0; i < sums.size(); ++i) of_sequence[i].push_back(sums[i]);
    };
    KeptPass donors, frozen;
    if (patches()) donors = batch.donors(ids_of(identity_.patch, first, batch.batch()), settings_.ablations);
    const PassValues intact = batch.intact(tokens_, first);
    if (settings_.frozen) frozen = batch.keep(settings_.ablations, true);
    put(intact.nll);
    put_answers(intact.answers, of_sequence);
    for (const Job& job : jobs_.list) {
      if (!is_open(job)) continue;
      if (job.first_read == static_cast<int>(plan().reads.size())) {  // only a control may be without a route
        put(intact.nll);
        continue;
      }
      const PassValues values = run_job(batch, first, job, donors, frozen);
      put(values.nll);
      if (job.kind != Job::Kind::effect) continue;
      put(values.kl);
      put(values.agree);
      put_answers(values.answers, of_sequence);
      for (const TokenClasses& classes : identity_.classes)
        put_classes(classes, values.nll, intact.nll, first, of_sequence);
    }
  }

  PassValues run_job(BatchProbe& batch, std::int64_t first, const Job& job, const KeptPass& donors,
                     const KeptPass& frozen) const {
    std::vector<model::RoutingIntervention> interventions;
    std::vector<kernels::OwnedTensor> owned;  // what they refer to
    std::vector<int> changed;
    const std::int64_t each = job.routes.size() == 1 ? batch.batch() : 1;
    for (std::int64_t i = 0; i < batch.batch(); i += each) {
      PreparedAblation prepared = prepare_ablation(
          model_, settings_.ablations[job.ablation], job.routes_of(draws_.document[index(first + i)]), reference_,
          {first + i, each, batch.positions(), settings_.seed, &donors,
           job.kind == Job::Kind::frozen ? &frozen : nullptr, i * batch.positions(),
           batch.lengths().subspan(index(i), index(each))});
      interventions.push_back(std::move(prepared.intervention));
      std::move(prepared.owned.begin(), prepared.owned.end(), std::back_inserter(owned));
      changed = std::move(prepared.changed_reads);
    }
    if (job.kind == Job::Kind::direct) return batch.direct(interventions.front(), changed);
    return batch.intervened(interventions, options_.share_prefix ? job.first_read : 0, job.kind == Job::Kind::effect);
  }

  /// Of a task; else nothing.
  static void put_answers(const std::vector<MetricValues>& answers, std::span<std::vector<double>> of_sequence) {
    for (std::size_t i = 0; i < answers.size(); ++i)
      of_sequence[i].insert(of_sequence[i].end(), answers[i].begin(), answers[i].end());
  }

  void put_classes(const TokenClasses& classes, const std::vector<double>& nll, const std::vector<double>& intact,
                   std::int64_t first, std::span<std::vector<double>> of_sequence) const {
    const std::size_t positions = index(tokens_.positions);
    for (std::size_t i = 0; i < of_sequence.size(); ++i) {
      std::vector<double> sums(classes.labels.size(), 0.0);
      for (std::size_t t = 0; t + 1 < positions; ++t) {
        const int label = classes.of_token[(index(first) + i) * (positions - 1) + t];
        if (label >= 0) sums[index(label)] += nll[i * positions + t] - intact[i * positions + t];
      }
      of_sequence[i].insert(of_sequence[i].end(), sums.begin(), sums.end());
    }
  }

  bool patches() const {
    return std::any_of(jobs_.list.begin(), jobs_.list.end(), [&](const Job& job) {
      return is_open(job) && donor_of(settings_.ablations[job.ablation]) == Donor::text;
    });
  }

  /// The same decisions on every rank: all have the same values.
  void look(std::int64_t end) {
    for (std::size_t a = 0; a < row_.ablations.size(); ++a) {
      const AblationEffects& effects = row_.ablations[a];
      for (std::size_t s = 0; s < sets_.size(); ++s) {
        if (open_[a][s] &&
            decide(values_so_far(std::span(effects.sets[s].delta_nll_sequence).first(index(end)), tokens_),
                   effects.tested(), row_.margin) != Decision::open)
          open_[a][s] = false;
      }
    }
  }

  void finish_effects() {
    for (std::size_t a = 0; a < row_.ablations.size(); ++a) {
      AblationEffects& effects = row_.ablations[a];
      for (std::size_t s = 0; s < sets_.size(); ++s) {
        finish_control(effects.sets[s].control, jobs_.alpha[a][s]);
        finish_control(effects.sets[s].contribution_control, jobs_.contribution[a][s]);
      }
      summarize(effects, identity_, row_.margin, step_);
      for (SetEffect& effect : effects.sets) {
        effect.kl /= effect.sequences_used;
        effect.top1_agreement /= effect.sequences_used;
        finish_classes(effect);
      }
    }
  }

  static void finish_control(ControlEffect& control, const ControlPlan& planned) {
    control.coverage = planned.coverage;
    control.overlap = planned.overlap;
    control.enumerated = planned.enumerated;
  }

  /// From sums to means. A set that was not tested has no tokens.
  void finish_classes(SetEffect& effect) const {
    const std::size_t used = std::isnan(effect.sequences_used) ? 0 : static_cast<std::size_t>(effect.sequences_used);
    for (std::size_t c = 0; c < identity_.classes.size(); ++c) {
      std::vector<double>& of_label = effect.delta_nll_class[c];
      std::vector<double> tokens(of_label.size(), 0.0);
      for (std::size_t i = 0; i < index(tokens_.positions - 1) * used; ++i) {
        if (const int label = identity_.classes[c].of_token[i]; label >= 0) ++tokens[index(label)];
      }
      for (std::size_t l = 0; l < tokens.size(); ++l) of_label[l] = tokens[l] > 0 ? of_label[l] / tokens[l] : nan;
    }
  }

  /// What one token goes through under all jobs that are open: ProbeCost's unit.
  double reads_per_token(bool share_prefix) const {
    const int reads = static_cast<int>(plan().reads.size());
    int sum = reads * (patches() ? 2 : 1);
    for (const Job& job : jobs_.list) {
      if (!is_open(job) || job.first_read == reads) continue;
      sum += share_prefix || job.kind == Job::Kind::direct ? job.computed_reads : reads;
    }
    return sum;
  }

  const model::Model& model_;
  const ProbeIdentity& identity_;
  const ProbeTokens& tokens_;
  const ProbeSettings& settings_;
  std::int64_t step_;
  ProbeOptions options_;
  std::vector<RouteSet> sets_;
  DocumentDraws draws_;
  SharedBatches batches_;
  Reference reference_;
  Jobs jobs_;
  std::vector<std::vector<bool>> open_;  // [ablation][set] is measured on the sequences to come
  ProbeRow row_;
};

}  // namespace

ProbeRow probe(const model::Model& model, const ProbeIdentity& identity, std::int64_t step,
               kernels::Communicator& communicator, const ProbeOptions& options) {
  return Prober(model, identity, step, communicator, options).run();
}

ProbeRow probe(const model::Model& model, const ProbeIdentity& identity, std::int64_t step) {
  return probe(model, identity, step, *kernels::single_communicator());
}

}  // namespace routescope::analysis
